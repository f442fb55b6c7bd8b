"""The T5 family in Flax linen, with T5X's parameter trees."""

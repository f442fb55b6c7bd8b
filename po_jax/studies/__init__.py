"""What a study found, over all its cells: points, figures and the page."""

"""What a run tells about itself: stages, progress, and records that outlive it."""

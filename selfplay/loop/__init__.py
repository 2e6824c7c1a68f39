"""What makes the next assistant out of conversations: curation, and the stages around it."""

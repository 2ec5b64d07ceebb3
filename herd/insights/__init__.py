"""What the records say when they are read together; pure, each file one question."""

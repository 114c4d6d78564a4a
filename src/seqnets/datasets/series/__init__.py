"""Long series, and windows of them."""

"""Small networks that serve training only. They know nothing of labels, methods or each other."""

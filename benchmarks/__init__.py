"""Speed and memory, measured side by side. Timings live here and never in the tests."""

"""The Hub: what is sent, what it holds, and how it fails."""

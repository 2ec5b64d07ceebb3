"""Rows, log lines and spans are written by a child process, fed over a pipe: no request waits for their making."""

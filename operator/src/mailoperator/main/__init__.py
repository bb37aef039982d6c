"""The command line: reads files, calls the pure builders, writes files. The only part that touches the disk."""

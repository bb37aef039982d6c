"""Sans-IO protocol cores: bytes in, commands out; responses in, bytes out. They never import each other, and know no meaning."""

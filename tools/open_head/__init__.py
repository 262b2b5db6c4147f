"""What `build_open_head.py` is made of: source mesh, cut, identity space and joints."""

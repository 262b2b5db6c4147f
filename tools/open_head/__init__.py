"""What `build_open_head.py` is made of: the source mesh, the cut, the identity space, the joints."""

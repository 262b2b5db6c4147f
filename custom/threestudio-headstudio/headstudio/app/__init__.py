"""The ``headstudio`` command: ``headstudio --help`` lists what it can do."""

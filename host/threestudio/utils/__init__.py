"""What everything is built on: configurations, errors, files, pictures, cameras."""

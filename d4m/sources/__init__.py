"""Sources of images: one file per kind of source, all of them an `ImageSource`."""

"""Teachers and students: the field's 3-layer ConvNet, and any timm architecture."""

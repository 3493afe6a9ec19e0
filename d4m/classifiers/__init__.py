"""Teachers and students: the field's 3-layer ConvNet, and any architecture of timm."""

"""Pure functions of arrays: rigid transforms, cameras, symmetry, pose solving, depth."""

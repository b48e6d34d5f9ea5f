"""Data for training: procedural assets, condition images, preparation of assets, shards and the dataset that reads them."""

__all__: list[str] = []

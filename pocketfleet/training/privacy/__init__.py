"""What keeps one device's update from being read, by the server or out of the model. Knows no phone and no wire.

``secure_aggregation``: the server learns a sum of updates and no single one. Nothing is imported here.
"""

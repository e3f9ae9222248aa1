"""What can go wrong with plugins."""


class UnknownComponent(LookupError):
    """No healthy plugin provides the component that was asked for."""


class UnfitPlugin(Exception):
    """A plugin does not keep to the contract; the message is one line."""

"""The demonstration: real programs in a laboratory of namespaces, from sign-in to the last goodbye."""

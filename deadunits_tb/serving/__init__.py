"""The TensorBoard plugin: loader, route table, handlers. Nothing is imported before it is needed."""

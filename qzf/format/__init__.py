"""The wire format: ids, structs and tables of ``spec/qzf-format.md``. Only this package knows construct."""

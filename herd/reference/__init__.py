"""The reference that is made from the tables: what each topic says, and how it looks as Markdown."""

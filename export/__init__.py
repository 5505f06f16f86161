"""A trained student becomes a file, the file is proven and measured. Never trains, never imports a teacher."""

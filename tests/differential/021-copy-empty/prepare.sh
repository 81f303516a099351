mkdir -p empty/nested/deeper

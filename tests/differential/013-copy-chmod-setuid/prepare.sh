echo tool > tool
chmod 4755 tool

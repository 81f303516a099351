mkdir owned
echo x > owned/file
chown 1234:5678 owned owned/file

head -c 9000000 /dev/zero | tr '\0' k > big
truncate -s 5000000 sparse
printf end >> sparse

mkdir tagged
echo x > tagged/file
setfattr -n user.note -v hello tagged/file
setfattr -n user.note -v dir tagged
cp /bin/busybox tagged/capable
setcap cap_net_bind_service+ep tagged/capable
mkdir tagged/sub
setfattr -n user.note -v nested tagged/sub

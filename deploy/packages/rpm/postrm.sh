if [ "$1" -eq 0 ]; then
    # The logs of the dynamic user, and the link that systemd made to them.
    rm -rf /var/log/private/inferprobe /var/log/inferprobe
    # Folders that the package made; a changed configuration file stays, as .rpmsave.
    rmdir /etc/inferprobe /usr/share/doc/inferprobe 2>/dev/null || :
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload || :
    fi
fi

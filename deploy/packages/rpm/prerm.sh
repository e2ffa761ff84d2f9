# $1 is the number of versions that stay installed.
if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop inferprobe.service || :
    fi
    systemctl disable inferprobe.service >/dev/null 2>&1 || :
fi

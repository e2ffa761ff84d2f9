# $1 is the number of installed versions: 1 after the first installation, 2 after an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
    systemctl enable inferprobe.service >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ] && systemctl start inferprobe.service; then
        echo "inferprobe is running, and serves http://127.0.0.1:8082/metrics. Next:"
    else
        echo "inferprobe is installed, but does not run: sudo inferprobe doctor says why. Next:"
    fi
    echo "  inferprobe top          where requests wait, live; http://127.0.0.1:8082/ shows it in a browser"
    echo "  sudo inferprobe doctor  what this host lets it measure, and how to get the rest"
    echo "  inferprobe assets       scrape configurations, dashboards and alert rules of this version"
elif [ -d /run/systemd/system ]; then
    systemctl try-restart inferprobe.service || :
fi

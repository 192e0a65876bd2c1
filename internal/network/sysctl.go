//go:build linux

package network

import (
	"errors"
	"io/fs"
	"os"
	"path"
)

// set writes settings of the network namespace that the calling thread is in; those of a protocol that the kernel lacks are left out.
func set(values [][2]string) error {
	for _, v := range values {
		err := os.WriteFile(path.Join("/proc/sys/net", v[0]), []byte(v[1]), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// router are the settings of a slot's namespace and the hub's. They are made before the links, which inherit them.
func router() [][2]string {
	values := [][2]string{
		{"ipv6/conf/all/disable_ipv6", "1"},
		{"ipv6/conf/default/disable_ipv6", "1"},
		{"ipv4/ip_forward", "1"},
	}
	for _, which := range []string{"all", "default"} {
		values = append(values, careful(which)...)
	}
	return values
}

// careful are settings of one link, or of all: it takes no advice, and only what could have come by it.
func careful(link string) [][2]string {
	conf := "ipv4/conf/" + link + "/"
	return [][2]string{
		{conf + "rp_filter", "1"},
		{conf + "accept_redirects", "0"},
		{conf + "send_redirects", "0"},
		{conf + "accept_source_route", "0"},
		{conf + "arp_ignore", "1"},
	}
}

// forwards lets the host forward packets between its links: any of them can be where an answer comes from.
func forwards() error {
	const name, on = "/proc/sys/net/ipv4/ip_forward", "1\n"
	if now, err := os.ReadFile(name); err != nil || string(now) == on {
		return err
	}
	return os.WriteFile(name, []byte(on), 0)
}

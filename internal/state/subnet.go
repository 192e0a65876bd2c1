//go:build linux

package state

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
)

// subnetFile is where the machines' subnet is written down: what the network is made of ends with the host's boot, and machines keep their addresses.
const subnetFile = "subnet.json"

// Subnet returns the machines' subnet; not a valid one before there was one.
func (d *Dir) Subnet() (subnet netip.Prefix, err error) {
	err = read(filepath.Join(d.root, subnetFile), &subnet)
	if errors.Is(err, os.ErrNotExist) {
		return netip.Prefix{}, nil
	}
	return subnet, err
}

// KeepSubnet writes the machines' subnet down, unless it is already.
func (d *Dir) KeepSubnet(subnet netip.Prefix) error {
	if was, err := d.Subnet(); err == nil && was == subnet {
		return nil
	}
	return write(filepath.Join(d.root, subnetFile), subnet, true)
}

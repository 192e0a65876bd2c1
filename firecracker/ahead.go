//go:build linux

package firecracker

import (
	"os"

	"github.com/tangle-network/microvm-runtime/internal/network"
)

// slotsAhead is how many slots are kept ready for the machines that come next.
const slotsAhead = 4

// ahead asks for slots to be made behind, for the machines that come next. It does not wait, and one who makes some is enough.
func (d *driver) ahead(n *network.Network) {
	if !d.hostNet.ahead.TryLock() {
		return
	}
	d.calls.Go(func() {
		defer d.hostNet.ahead.Unlock()
		numbers, err := d.slots.Coming(slotsAhead)
		for _, number := range numbers {
			if err != nil || d.life.Err() != nil {
				break
			}
			err = d.makeAhead(n, number)
		}
		d.warn("no slots are made ahead", err)
	})
}

func (d *driver) makeAhead(n *network.Network, number int) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if !d.options.Bare {
		slot := d.slots.Slot(number)
		uid, gid = slot.UID, slot.GID
	}
	_, err := n.Make(d.life, number, uid, gid)
	return err
}

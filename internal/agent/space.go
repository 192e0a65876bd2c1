//go:build linux

package agent

import (
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Percent of a file system, in bytes or in files, that is free when it is told of. Where it has more again is above where it had less, so that a disk at a bound is not told of
// again and again.
const (
	lowBelow    = 10
	okFrom      = 15
	fullNotFrom = 2
)

// space returns how much room a file system has, for who is not root. Of an overlay it is that of its upper layer.
func space(path string) (wire.Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return wire.Disk{}, err
	}
	size := int64(s.Frsize)
	return wire.Disk{Path: path, Free: int64(s.Bavail) * size, Size: int64(s.Blocks) * size, FilesFree: int64(s.Ffree), Files: int64(s.Files)}, nil
}

// levelOf says whether a disk has room, when it was at another level before.
func levelOf(d wire.Disk, before string) string {
	free := percent(d.Free, d.Size)
	if d.Files > 0 {
		free = min(free, percent(d.FilesFree, d.Files))
	}
	none := d.Free <= 0 || d.Files > 0 && d.FilesFree <= 0
	switch {
	case d.Size <= 0:
		return before // it has no bound
	case none, before == wire.EventDiskFull && free < fullNotFrom:
		return wire.EventDiskFull
	case free < lowBelow, before != wire.EventDiskOK && free < okFrom:
		return wire.EventDiskLow
	}
	return wire.EventDiskOK
}

func percent(part, all int64) float64 { return 100 * float64(part) / float64(max(all, 1)) }

// lookAtDisk tells when the disk has come to another level.
func (o *observer) lookAtDisk() {
	disk, err := o.space()
	if err != nil {
		return
	}
	if level := levelOf(disk, o.level); level != o.level {
		o.level = level
		o.tell(wire.SystemEvent{Kind: level, Disk: &disk})
	}
}

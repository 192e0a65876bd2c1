//go:build linux

package pager

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// recordVersion is of regions.json and of the files beside it.
const recordVersion = 1

// regions are what the next pager must know.
type regions struct {
	VMM   vmm.Identity `json:"vmm"`
	Table table        `json:"table"`
}

func recordPath(dir string) string { return filepath.Join(dir, "regions.json") }
func reasonPath(dir string) string { return filepath.Join(dir, "reason.json") }
func statsPath(dir string) string  { return filepath.Join(dir, "stats.json") }

// note need not survive power loss: the VMM does not either.
func note(path string, value any) error { return record.Write(path, recordVersion, value, false) }

func writeRegions(dir string, r regions) error { return note(recordPath(dir), r) }

// readRegions returns nil where there are none.
func readRegions(dir string) (*regions, error) {
	r := new(regions)
	err := record.Read(recordPath(dir), recordVersion, r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// reason is why a VM was ended.
type reason struct {
	VMM    vmm.Identity `json:"vmm"`
	Reason string       `json:"reason"`
	Time   time.Time    `json:"time"`
}

func writeReason(dir string, identity vmm.Identity, text string) error {
	return note(reasonPath(dir), reason{identity, text, time.Now()})
}

// Reason returns why the VM was ended by its pager, or because its pager had ended. It is empty where it was not.
func Reason(dir string, identity vmm.Identity) (string, error) {
	var r reason
	err := record.Read(reasonPath(dir), recordVersion, &r)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if r.VMM != identity { // of a VMM before
		return "", nil
	}
	return r.Reason, nil
}

func writeStats(dir string, s Stats) error { return note(statsPath(dir), s) }

func readStats(dir string) (s Stats, err error) {
	err = record.Read(statsPath(dir), recordVersion, &s)
	return s, err
}

// own are the files that a pager makes beside the helper's.
func own(dir string) []string {
	return []string{recordPath(dir), removedPath(dir), reasonPath(dir), statsPath(dir)}
}

// clean removes what is of another VMM.
func clean(dir string) error {
	var err error
	for _, path := range own(dir) {
		for _, path := range []string{path, path + record.NewSuffix} {
			if failed := os.Remove(path); !errors.Is(failed, fs.ErrNotExist) {
				err = errors.Join(err, failed)
			}
		}
	}
	return err
}

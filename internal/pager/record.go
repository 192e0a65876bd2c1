//go:build linux

package pager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// recordVersion is of regions.json and of the file beside it.
const recordVersion = 1

// record is what the next pager must know.
type record struct {
	Version int          `json:"version"`
	VMM     vmm.Identity `json:"vmm"`
	Table   table        `json:"table"`
}

func recordPath(dir string) string { return filepath.Join(dir, "regions.json") }
func reasonPath(dir string) string { return filepath.Join(dir, "reason.json") }
func statsPath(dir string) string  { return filepath.Join(dir, "stats.json") }

// writeJSON replaces a file by rename: a reader sees one or the other, whole.
func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return replace(path, text)
}

func replace(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func writeRecord(dir string, r record) error {
	r.Version = recordVersion
	return writeJSON(recordPath(dir), r)
}

// readRecord returns nil where there is none.
func readRecord(dir string) (*record, error) {
	text, err := os.ReadFile(recordPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordPath(dir), err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("%s: version %d, this program knows %d", recordPath(dir), r.Version, recordVersion)
	}
	return r, nil
}

// reason is why a VM was ended.
type reason struct {
	VMM    vmm.Identity `json:"vmm"`
	Reason string       `json:"reason"`
	Time   time.Time    `json:"time"`
}

func writeReason(dir string, identity vmm.Identity, text string) error {
	return writeJSON(reasonPath(dir), reason{identity, text, time.Now()})
}

// Reason returns why the VM was ended by its pager, or because its pager had ended. It is empty where it was not.
func Reason(dir string, identity vmm.Identity) (string, error) {
	text, err := os.ReadFile(reasonPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var r reason
	if err := json.Unmarshal(text, &r); err != nil {
		return "", fmt.Errorf("%s: %w", reasonPath(dir), err)
	}
	if r.VMM != identity { // of a VMM before
		return "", nil
	}
	return r.Reason, nil
}

func writeStats(dir string, s Stats) error { return writeJSON(statsPath(dir), s) }

// own are the files that a pager makes beside the helper's.
func own(dir string) []string {
	return []string{recordPath(dir), removedPath(dir), reasonPath(dir), statsPath(dir)}
}

// clean removes what is of another VMM.
func clean(dir string) error {
	var err error
	for _, path := range own(dir) {
		for _, path := range []string{path, path + ".new"} {
			if failed := os.Remove(path); !errors.Is(failed, fs.ErrNotExist) {
				err = errors.Join(err, failed)
			}
		}
	}
	return err
}

//go:build linux

package helper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// record is what is written down of a helper that serves.
type record struct {
	Identity vmm.Identity `json:"identity"`
	Version  string       `json:"version"`
	Config   []byte       `json:"config,omitempty"`
}

// writeRecord replaces the record by rename: a reader sees one or the other, whole. It is on tmpfs, or says by its boot id that it is of before.
func writeRecord(at place, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := at.record()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readRecord returns nil where there is none.
func readRecord(at place) (*record, error) {
	text, err := os.ReadFile(at.record())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w (remove it when no helper runs)", at.record(), err)
	}
	return r, nil
}

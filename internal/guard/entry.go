//go:build linux

package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
)

const entryVersion = 1

// GatePort is where gates listen, at the gateway's address in the namespace of a slot.
const GatePort = 10443

// Entry is what the guard must know of one machine.
type Entry struct {
	Version   int             `json:"version"`
	UID       string          `json:"uid"`
	Address   netip.Addr      `json:"address"`   // The machine's own: its questions come from there.
	Namespace string          `json:"namespace"` // Path of its slot's namespace.
	Rules     []firewall.Rule `json:"rules"`
	VerifySNI bool            `json:"verify_sni,omitempty"`
}

// Needed says whether the guard has anything to do for the machine.
func (e *Entry) Needed() bool {
	return slices.ContainsFunc(e.Rules, func(r firewall.Rule) bool { return r.Name != "" })
}

func entryPath(dir string, address netip.Addr) string {
	return filepath.Join(dir, "entry", address.String()+".json")
}

// Write writes an entry in place of the one before.
func Write(dir string, e Entry) error {
	e.Version = entryVersion
	for _, d := range []string{dir, filepath.Join(dir, "entry")} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := entryPath(dir, e.Address)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Remove removes the entry of the machine with this address, if there is one.
func Remove(dir string, address netip.Addr) error {
	if err := os.Remove(entryPath(dir, address)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// load returns fs.ErrNotExist when there is no entry.
func load(dir string, address netip.Addr) (e Entry, as fs.FileInfo, err error) {
	f, err := os.Open(entryPath(dir, address))
	if err != nil {
		return e, nil, err
	}
	defer f.Close()
	if as, err = f.Stat(); err != nil {
		return e, nil, err
	}
	if err := json.NewDecoder(f).Decode(&e); err != nil {
		return e, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if e.Version > entryVersion {
		return e, nil, fmt.Errorf("%s: %w: version %d is newer than this program", f.Name(), microvm.ErrIncompatible, e.Version)
	}
	if e.Address != address {
		return e, nil, fmt.Errorf("%s is of %s", f.Name(), e.Address)
	}
	return e, as, nil
}

// addresses returns those of all entries.
func addresses(dir string) ([]netip.Addr, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "entry"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []netip.Addr
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if address, err := netip.ParseAddr(name); ok && err == nil {
			all = append(all, address)
		}
	}
	return all, nil
}

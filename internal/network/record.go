//go:build linux

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	microvm "github.com/tangle-network/microvm-runtime"
)

// version is that of the files.
const version = 1

// record is network.json.
type record struct {
	Version int          `json:"version"`
	ID      string       `json:"id"`
	Subnet  netip.Prefix `json:"subnet"`
	Uplink  string       `json:"uplink,omitempty"`
	MTU     int          `json:"mtu"`
}

// slotRecord is slot/N.json.
type slotRecord struct {
	Version int `json:"version"`
	UID     int `json:"uid"`
	GID     int `json:"gid"`
	MTU     int `json:"mtu"`
	// Hub tells the hub that the slot leads to from one that was made after it was lost.
	Hub string `json:"hub"`
}

const hubName = "hub"

func (o Options) recordPath() string { return filepath.Join(o.Dir, "network.json") }
func (o Options) lockPath() string   { return filepath.Join(o.Dir, "lock") }
func (o Options) namespaces() string { return filepath.Join(o.Dir, "ns") }
func (o Options) records() string    { return filepath.Join(o.Dir, "slot") }
func (o Options) locks() string      { return filepath.Join(o.Dir, "lock.d") }
func (o Options) hubPath() string    { return filepath.Join(o.namespaces(), hubName) }
func (o Options) namespace(number int) string {
	return filepath.Join(o.namespaces(), strconv.Itoa(number))
}
func (o Options) slotPath(number int) string {
	return filepath.Join(o.records(), strconv.Itoa(number)+".json")
}

// Made says whether a directory has a network. None outlives the host's boot.
func Made(dir string) bool {
	_, err := os.Lstat(Options{Dir: dir}.recordPath())
	return !errors.Is(err, fs.ErrNotExist)
}

// Namespace returns where a slot's namespace is, whether it is made or not: who only looks into it need not open the network.
func Namespace(dir string, number int) string { return Options{Dir: dir}.namespace(number) }

// load reads one of the files. fs.ErrNotExist when there is none.
func load[T any](path string, versionOf func(T) int) (value T, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return value, fmt.Errorf("%s: %w", path, err)
	}
	if v := versionOf(value); v != version {
		return value, fmt.Errorf("%w: %s has version %d, this program knows %d", microvm.ErrIncompatible, path, v, version)
	}
	return value, nil
}

func loadRecord(path string) (record, error) {
	return load(path, func(r record) int { return r.Version })
}

func loadSlot(path string) (slotRecord, error) {
	return load(path, func(r slotRecord) int { return r.Version })
}

// save replaces one of the files. Nothing of the directory outlives the boot: it is not flushed.
func save(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return os.Rename(path+".new", path)
}

//go:build linux

package imagestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// Version is the version of the records that this package writes. It reads this and all older ones.
const Version = 1

const maxRecord = 16 << 20

// ErrDamaged is returned for a record that can't be what this package wrote.
var ErrDamaged = errors.New("damaged")

// Config is what an image's maker says about running it, as in the OCI image specification.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // KEY=VALUE.
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // Sorted, such as "80/tcp".
	Labels       map[string]string `json:"labels,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
}

// Record is what is written down of an image.
type Record struct {
	Digest   string    `json:"digest"`   // Of the manifest: "sha256:" and 64 hexadecimal digits.
	Platform string    `json:"platform"` // Such as "linux/amd64".
	Created  time.Time `json:"created"`  // When it came into the store.
	Size     int64     `json:"size"`     // Of the base, in bytes.
	SHA256   string    `json:"sha256"`   // Of the base, 64 hexadecimal digits.
	Config   Config    `json:"config"`
}

// envelope is the form of every file of records.
type envelope struct {
	Version int             `json:"version"`
	Body    json.RawMessage `json:"body"`
}

// writeRecord replaces path in one step for readers; when it returns, the record survives power loss.
func writeRecord(path string, body any) (err error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	text, err := json.Marshal(envelope{Version: Version, Body: raw})
	if err != nil {
		return err
	}
	temp := path + newSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(text, '\n')); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	return disk.SyncDir(filepath.Dir(path))
}

// readRecord fills body from path: fs.ErrNotExist, ErrDamaged or microvm.ErrIncompatible when it can't.
func readRecord(path string, body any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return err
	}
	if err := decodeRecord(text, body); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func decodeRecord(text []byte, body any) error {
	var e envelope
	switch err := json.Unmarshal(text, &e); {
	case len(text) > maxRecord:
		return fmt.Errorf("%w: larger than %d bytes", ErrDamaged, maxRecord)
	case err != nil:
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	case e.Version > Version:
		return fmt.Errorf("%w: version %d, this program reads up to %d", microvm.ErrIncompatible, e.Version, Version)
	case e.Version < 1:
		return fmt.Errorf("%w: version %d", ErrDamaged, e.Version)
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

//go:build linux

package state

import (
	"errors"
	"os"

	"github.com/tangle-network/microvm-runtime/internal/record"
)

// Version is the version of records that this package writes. It reads this and all older ones.
const Version = 1

// ErrDamaged is returned for a file that can't be what this package wrote.
var ErrDamaged = record.ErrDamaged

func write(path string, body any, durable bool) error {
	return record.Write(path, Version, body, durable)
}

func read(path string, body any) error { return record.Read(path, Version, body) }

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

package image

import (
	"errors"
	"fmt"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// What can be wrong with what an image is made of. Nothing of it stays in the store.
var (
	// ErrMalformed is returned for what is no image, or one that no extractor could extract.
	ErrMalformed = flatten.ErrMalformed
	// ErrLimit is returned for what is larger than [Limits] allow.
	ErrLimit = flatten.ErrLimit
	// ErrDigest is returned for content that doesn't fit its digest or its size.
	ErrDigest = flatten.ErrDigest
)

// worthless says that what was downloaded is no good for another try.
func worthless(err error) bool {
	for _, reason := range []error{ErrMalformed, ErrLimit, ErrDigest, microvm.ErrUnsupported, syscall.ENOSPC} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// explain adds what a caller may want to branch on.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, microvm.ErrExhausted) {
		return fmt.Errorf("%w: %w (microvm image prune makes room)", microvm.ErrExhausted, err)
	}
	return err
}

// abbreviate keeps what strangers wrote from filling a message.
func abbreviate(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

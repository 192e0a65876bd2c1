//go:build linux

package image

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// PullOptions are the options of [Store.Pull]. Nil, or the zero value, is the default.
type PullOptions struct {
	// Platform is such as "linux/arm64" or "linux/arm/v7". Optional: linux and this program's architecture.
	Platform string
	// Insecure allows HTTP, for a registry that has no HTTPS. Optional: only for those on this host and in private networks.
	Insecure bool
	// Transport is how the registry is reached. Optional: directly, or through the proxy that the environment names.
	Transport http.RoundTripper
	// Limits bound what the image may come to. Optional.
	Limits Limits
	// Progress is told how far it is, one call at a time; it must not be slow. Optional.
	Progress func(Progress)
}

// Pull gets an image from a registry, unless the store has the very image that the reference means now. A reference with a digest, such as "debian@sha256:…", means one image
// for ever.
//
// Layers are downloaded in parallel; what was downloaded stays when Pull fails, so that the next call goes on there. When several callers, also of several processes, want the same
// image at once, one builds it and the others wait. Errors: microvm.ErrNotFound, ErrInvalid, ErrIncompatible (no such platform), ErrExhausted (disk space, or the registry's limit),
// and [ErrDigest], [ErrLimit] or [ErrMalformed] for an image that is not what it should be, of which nothing stays.
func (s *Store) Pull(ctx context.Context, reference string, options *PullOptions) (Image, error) {
	if options == nil {
		options = &PullOptions{}
	}
	image, err := s.pull(ctx, reference, options)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", abbreviate(reference), explain(err))
	}
	return image, nil
}

func (s *Store) pull(ctx context.Context, reference string, o *PullOptions) (Image, error) {
	platform, err := platformOf(o.Platform)
	if err != nil {
		return Image{}, err
	}
	normalized, err := imagestore.Normalize(reference)
	if err != nil {
		return Image{}, err
	}
	if err := s.dir.Make(); err != nil {
		return Image{}, err
	}
	var how []name.Option
	if o.Insecure {
		how = append(how, name.Insecure)
	}
	ref, err := name.ParseReference(normalized, how...)
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	base := o.Transport
	if base == nil {
		own := defaultTransport()
		defer own.CloseIdleConnections()
		base = own
	}
	from, err := s.connect(ctx, ref.Context(), base)
	if err != nil {
		return Image{}, err
	}
	raw, err := from.manifest(ctx, ref.Identifier())
	if err != nil {
		return Image{}, err
	}
	limits := o.Limits.resolve()
	r, err := resolve(ctx, from, raw, platform, limits)
	if err != nil {
		return Image{}, err
	}
	return s.make(ctx, r, []string{normalized}, limits, newReporter(o.Progress))
}

//go:build linux

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// Annotations of an index that name images: the specification's, often only a tag, and containerd's.
const (
	annotationRef  = "org.opencontainers.image.ref.name"
	annotationName = "io.containerd.image.name"
)

// layout is an OCI image layout.
type layout struct{ files files }

// fromLayout makes a recipe of a layout, and returns the names that the layout has for the image.
func fromLayout(ctx context.Context, files files, selected string, platform v1.Platform, limits flatten.Limits) (recipe, []string, error) {
	text, err := files.text("index.json")
	if err != nil {
		return recipe{}, nil, fmt.Errorf("%w: layout: %w", ErrMalformed, err)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return recipe{}, nil, fmt.Errorf("%w: index.json: %w", ErrMalformed, err)
	}
	candidates, err := selectNamed(index.Manifests, selected)
	if err != nil {
		return recipe{}, nil, err
	}
	chosen, err := choose(candidates, platform)
	if err != nil {
		return recipe{}, nil, err
	}
	l := layout{files}
	raw, err := l.document(ctx, chosen)
	if err != nil {
		return recipe{}, nil, err
	}
	r, err := resolve(ctx, l, raw, platform, limits)
	var names []string
	if name, err := imagestore.Normalize(chosen.Annotations[annotationName]); err == nil {
		names = append(names, name)
	}
	return r, names, err
}

// selectNamed returns the descriptors that a name or tag selects. Without one there must not be several to select from.
func selectNamed(all []v1.Descriptor, selected string) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	known := map[string]bool{}
	for _, d := range all {
		names := []string{d.Annotations[annotationRef], d.Annotations[annotationName]}
		if selected == "" || named(names, selected) {
			found = append(found, d)
		}
		if name := names[0] + names[1]; name != "" {
			known[strings.Trim(strings.Join(names, " "), " ")] = true
		}
	}
	if selected != "" && len(found) == 0 || selected == "" && len(known) > 1 {
		return nil, &microvm.FieldError{Field: "Select", Value: selected, Reason: "must be one of the source's images: " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")}
	}
	return found, nil
}

// named says whether one of names is a name, in whatever form.
func named(names []string, name string) bool {
	full, err := imagestore.Normalize(name)
	return slices.ContainsFunc(names, func(n string) bool {
		other, err2 := imagestore.Normalize(n)
		return n == name || err == nil && err2 == nil && other == full
	})
}

func (l layout) path(d v1.Descriptor) string {
	return "blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex
}

func (l layout) document(_ context.Context, d v1.Descriptor) ([]byte, error) {
	if err := checkDocument(d); err != nil {
		return nil, err
	}
	text, err := l.files.text(l.path(d))
	if err != nil {
		return nil, missing(err)
	}
	return text, fits(text, d)
}

func (l layout) layer(_ context.Context, d v1.Descriptor, report func(int64)) (blob, error) {
	b, err := l.files.open(l.path(d))
	if err != nil {
		return blob{}, missing(err)
	}
	if b.size != d.Size {
		return blob{}, errors.Join(fmt.Errorf("%w: layer %s has %d bytes, not %d", ErrDigest, d.Digest, b.size, d.Size), b.close())
	}
	report(d.Size)
	return b, nil
}

// missing marks an error about a member that should be there.
func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return err
}

// close closes a blob that may need none.
func (b blob) close() error {
	if b.Closer == nil {
		return nil
	}
	return b.Closer.Close()
}

var _ io.ReaderAt = blob{}

//go:build linux

package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// source is where the parts of an image come from: a registry's repository, or files.
type source interface {
	// document returns a whole manifest or configuration, which fits its descriptor.
	document(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// layer returns a layer to read as often as one likes. What it holds may not fit the descriptor: its DiffID is checked when it is read.
	layer(ctx context.Context, d v1.Descriptor, report func(done int64)) (blob, error)
}

// blob is a layer's file.
type blob struct {
	io.ReaderAt
	io.Closer
	size     int64
	volatile bool // Others may write to it.
}

// recipe says what an image is made of.
type recipe struct {
	digest   string
	platform string
	config   imagestore.Config
	layers   []part
	plain    bool // Layers have no whiteouts.
	from     source
}

// part is a layer.
type part struct {
	v1.Descriptor
	diffID string
}

const maxIndexes = 4 // An index may name others.

// anything has the fields that tell an index from a manifest.
type anything struct {
	Manifests json.RawMessage `json:"manifests"`
	Layers    json.RawMessage `json:"layers"`
	Config    json.RawMessage `json:"config"`
}

// resolve finds the image for a platform in what a reference means: a manifest, or an index of them.
func resolve(ctx context.Context, from source, raw []byte, platform v1.Platform, limits flatten.Limits) (recipe, error) {
	for range maxIndexes {
		var a anything
		if err := json.Unmarshal(raw, &a); err != nil {
			return recipe{}, fmt.Errorf("%w: manifest: %w", ErrMalformed, err)
		}
		if a.Manifests == nil {
			if a.Config == nil {
				return recipe{}, fmt.Errorf("%w: neither a manifest nor an index of version 2 (of version 1: push it again with a newer tool)", ErrMalformed)
			}
			return fromManifest(ctx, from, raw, platform, limits)
		}
		index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return recipe{}, fmt.Errorf("%w: index: %w", ErrMalformed, err)
		}
		chosen, err := choose(index.Manifests, platform)
		if err != nil {
			return recipe{}, err
		}
		if raw, err = from.document(ctx, chosen); err != nil {
			return recipe{}, err
		}
	}
	return recipe{}, fmt.Errorf("%w: an index within %d others", ErrMalformed, maxIndexes)
}

// choose returns the first descriptor for a platform. One that says nothing of a platform may be for any.
func choose(all []v1.Descriptor, platform v1.Platform) (v1.Descriptor, error) {
	var others []string
	var silent []v1.Descriptor
	for _, d := range all {
		switch {
		case !d.MediaType.IsImage() && !d.MediaType.IsIndex():
		case d.Platform == nil:
			silent = append(silent, d)
		case d.Platform.Satisfies(platform):
			return d, nil
		case d.Platform.OS != "unknown": // attestations
			others = append(others, d.Platform.String())
		}
	}
	if len(silent) > 0 {
		return silent[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("%w: there is none for %s, but for: %s", microvm.ErrIncompatible, platform, strings.Join(others, ", "))
}

// fromManifest checks a manifest and its configuration and makes a recipe of them.
func fromManifest(ctx context.Context, from source, raw []byte, platform v1.Platform, limits flatten.Limits) (recipe, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return recipe{}, fmt.Errorf("%w: manifest: %w", ErrMalformed, err)
	}
	if !m.Config.MediaType.IsConfig() {
		return recipe{}, fmt.Errorf("%w: no image, but an artifact of type %q", microvm.ErrUnsupported, abbreviate(string(m.Config.MediaType)))
	}
	if err := checkLayers(m.Layers, limits); err != nil {
		return recipe{}, err
	}
	text, err := from.document(ctx, m.Config)
	if err != nil {
		return recipe{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return recipe{}, err
	}
	return newRecipe(from, digest.String(), text, m.Layers, platform)
}

func checkLayers(layers []v1.Descriptor, limits flatten.Limits) error {
	if len(layers) > limits.Layers {
		return fmt.Errorf("%w: %d layers, at most %d", ErrLimit, len(layers), limits.Layers)
	}
	sum := int64(0)
	for _, d := range layers {
		switch {
		case d.Size < 0 || d.Digest.Hex == "":
			return fmt.Errorf("%w: a layer of %d bytes with digest %q", ErrMalformed, d.Size, d.Digest.Hex)
		case d.Size > limits.Bytes-sum:
			return fmt.Errorf("%w: layers of more than %d bytes", ErrLimit, limits.Bytes)
		case strings.Contains(string(d.MediaType), "encrypted"):
			return fmt.Errorf("%w: layer %s is encrypted", microvm.ErrUnsupported, d.Digest)
		}
		sum += d.Size
	}
	return nil
}

// newRecipe makes a recipe of an image's configuration.
func newRecipe(from source, digest string, config []byte, layers []v1.Descriptor, platform v1.Platform) (recipe, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return recipe{}, fmt.Errorf("%w: configuration: %w", ErrMalformed, err)
	}
	if len(c.RootFS.DiffIDs) != len(layers) {
		return recipe{}, fmt.Errorf("%w: %d layers, and the configuration knows %d", ErrMalformed, len(layers), len(c.RootFS.DiffIDs))
	}
	has := v1.Platform{OS: cmp.Or(c.OS, platform.OS), Architecture: cmp.Or(c.Architecture, platform.Architecture), Variant: cmp.Or(c.Variant, platform.Variant)}
	if !has.Satisfies(platform) {
		return recipe{}, fmt.Errorf("%w: the image is for %s, not for %s", microvm.ErrIncompatible, has, platform)
	}
	r := recipe{digest: digest, platform: has.String(), config: configOf(c.Config), from: from}
	for i, d := range layers {
		if c.RootFS.DiffIDs[i].Algorithm != "sha256" {
			return recipe{}, fmt.Errorf("%w: DiffID %s", microvm.ErrUnsupported, c.RootFS.DiffIDs[i])
		}
		r.layers = append(r.layers, part{d, c.RootFS.DiffIDs[i].String()})
	}
	return r, nil
}

func configOf(c v1.Config) imagestore.Config {
	return imagestore.Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
	}
}

// platformOf parses what a caller wants.
func platformOf(text string) (v1.Platform, error) {
	if text == "" {
		text = "linux/" + runtime.GOARCH
	}
	p, err := v1.ParsePlatform(text)
	if err != nil || p.OS != "linux" || p.Architecture == "" || strings.ContainsAny(text, " :") {
		return v1.Platform{}, &microvm.FieldError{Field: "Platform", Value: text, Reason: "must be such as linux/amd64 or linux/arm64/v8"}
	}
	return *p, nil
}

// fits compares a document with its descriptor.
func fits(text []byte, d v1.Descriptor) error {
	if int64(len(text)) != d.Size {
		return fmt.Errorf("%w: %s has %d bytes, not %d", ErrDigest, d.Digest, len(text), d.Size)
	}
	hash, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return fmt.Errorf("%w: %w", microvm.ErrUnsupported, err)
	}
	hash.Write(text)
	if sum := fmt.Sprintf("%x", hash.Sum(nil)); sum != d.Digest.Hex {
		return fmt.Errorf("%w: %s is %s", ErrDigest, d.Digest, sum)
	}
	return nil
}

// checkDocument refuses a descriptor of a manifest or configuration before it is fetched.
func checkDocument(d v1.Descriptor) error {
	if d.Size < 0 || d.Size > maxDocument {
		return fmt.Errorf("%w: a manifest or configuration of %d bytes, at most %d", ErrLimit, d.Size, maxDocument)
	}
	return nil
}

// readDocument reads a document that may have no end.
func readDocument(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(text) > maxDocument {
		err = fmt.Errorf("%w: a manifest or configuration of more than %d bytes", ErrLimit, maxDocument)
	}
	return text, err
}

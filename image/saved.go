//go:build linux

package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

const savedManifest = "manifest.json"

// savedImage is an entry of what docker save writes beside the images.
type savedImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// parseSaved returns the images of a manifest.json, or nil when it is something else.
func parseSaved(text []byte) []savedImage {
	var images []savedImage
	if json.Unmarshal(text, &images) != nil {
		return nil
	}
	for _, i := range images {
		if i.Config == "" || i.Layers == nil || slices.Contains(i.Layers, "") {
			return nil
		}
	}
	return images
}

// saved is an image that docker save wrote. It has no manifest, and layers are known by their DiffIDs.
type saved struct {
	files  files
	layers map[v1.Hash]string
}

// fromSaved makes a recipe of what docker save wrote, and returns the image's tags.
func fromSaved(files files, selected string, platform v1.Platform, limits flatten.Limits) (recipe, []string, error) {
	text, err := files.text(savedManifest)
	if err != nil {
		return recipe{}, nil, missing(err)
	}
	one, err := selectSaved(parseSaved(text), selected)
	if err != nil {
		return recipe{}, nil, err
	}
	config, err := files.text(one.Config)
	if err != nil {
		return recipe{}, nil, missing(err)
	}
	var c v1.ConfigFile
	if err := json.Unmarshal(config, &c); err != nil || len(c.RootFS.DiffIDs) != len(one.Layers) {
		return recipe{}, nil, fmt.Errorf("%w: configuration %s", ErrMalformed, abbreviate(one.Config))
	}
	s := saved{files: files, layers: map[v1.Hash]string{}}
	layers := make([]v1.Descriptor, len(one.Layers))
	for n, name := range one.Layers {
		b, err := files.open(name)
		if err != nil {
			return recipe{}, nil, missing(err)
		}
		if err := b.close(); err != nil {
			return recipe{}, nil, err
		}
		layers[n] = v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: c.RootFS.DiffIDs[n], Size: b.size}
		s.layers[layers[n].Digest] = name
	}
	if err := checkLayers(layers, limits); err != nil {
		return recipe{}, nil, err
	}
	digest, err := manifestDigest(config, layers)
	if err != nil {
		return recipe{}, nil, err
	}
	r, err := newRecipe(s, digest, config, layers, platform)
	return r, tagsOf(one), err
}

// selectSaved returns the image with a tag. Without one there must be only one image.
func selectSaved(images []savedImage, selected string) (savedImage, error) {
	var tags []string
	for _, i := range images {
		tags = append(tags, i.RepoTags...)
		if selected != "" && named(i.RepoTags, selected) || selected == "" && len(images) == 1 {
			return i, nil
		}
	}
	if len(images) == 0 {
		return savedImage{}, fmt.Errorf("%w: %s names no image", ErrMalformed, savedManifest)
	}
	return savedImage{}, &microvm.FieldError{Field: "Select", Value: selected, Reason: "must be one of the source's images: " + strings.Join(tags, ", ")}
}

func tagsOf(i savedImage) []string {
	var names []string
	for _, tag := range i.RepoTags {
		if name, err := imagestore.Normalize(tag); err == nil && !strings.Contains(name, "@") {
			names = append(names, name)
		}
	}
	return names
}

func (s saved) document(context.Context, v1.Descriptor) ([]byte, error) {
	return nil, fmt.Errorf("%w: there are no manifests", ErrMalformed)
}

func (s saved) layer(_ context.Context, d v1.Descriptor, report func(int64)) (blob, error) {
	b, err := s.files.open(s.layers[d.Digest])
	report(d.Size)
	return b, err
}

//go:build linux

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fromRootfs makes a recipe of a root file system: one layer, and a manifest and a configuration that are made of its digest and the options alone.
func (i *importer) fromRootfs(b blob, sum string, size int64) (recipe, error) {
	diffID, err := v1.NewHash(sum)
	if err != nil {
		return recipe{}, err
	}
	config := v1.ConfigFile{
		OS: i.platform.OS, Architecture: i.platform.Architecture, Variant: i.platform.Variant, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
	}
	if c := i.options.Config; c != nil {
		config.Config = v1.Config{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal}
		for _, port := range c.ExposedPorts {
			if config.Config.ExposedPorts == nil {
				config.Config.ExposedPorts = map[string]struct{}{}
			}
			config.Config.ExposedPorts[port] = struct{}{}
		}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return recipe{}, err
	}
	layers := []v1.Descriptor{{MediaType: types.OCIUncompressedLayer, Digest: diffID, Size: size}}
	if err := checkLayers(layers, i.limits); err != nil {
		return recipe{}, err
	}
	digest, err := manifestDigest(text, layers)
	if err != nil {
		return recipe{}, err
	}
	r, err := newRecipe(single{b}, digest, text, layers, i.platform)
	r.plain = true
	return r, err
}

// manifestDigest returns the digest of the manifest that an image without one would have.
func manifestDigest(config []byte, layers []v1.Descriptor) (string, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digest, Size: size}, Layers: layers,
	})
	if err != nil {
		return "", err
	}
	digest, _, err = v1.SHA256(bytes.NewReader(text))
	return digest.String(), err
}

// single is a source of one layer and nothing else.
type single struct{ blob blob }

func (s single) document(context.Context, v1.Descriptor) ([]byte, error) { return nil, io.EOF }

func (s single) layer(_ context.Context, d v1.Descriptor, report func(int64)) (blob, error) {
	report(d.Size)
	return blob{ReaderAt: s.blob.ReaderAt, size: s.blob.size, volatile: s.blob.volatile}, nil
}

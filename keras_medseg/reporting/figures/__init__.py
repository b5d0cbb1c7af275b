"""The report's figures. Each function takes arrays or tables and returns a matplotlib Figure.

    charts       learning curves and box plots of scores
    calibration  whether probabilities mean what they say
    volumes      slices of volumes: label maps, edge maps, outputs
    images       two-dimensional images: outlines, attention maps, masks of several networks
    style        what all of them share: colors, line styles, layout, and saving to PNG

Import the module that you need, such as `from keras_medseg.reporting.figures import charts`. A
figure for a single paper is in the folder of that paper and uses `style`.
"""

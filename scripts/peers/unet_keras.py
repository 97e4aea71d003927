"""The network and the recipe `seed` in Keras on TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

CATEGORY_COUNT = 23
CHANNELS = (8, 16, 32, 64, 128)


def unet():
    """Photos u8 [batch, rows, columns, 3] to logits [batch, rows, columns, 23]."""

    def pair(x, name, channels):
        for half in "ab":
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=name + half)(x)
        return x

    photos = keras.Input((None, None, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(photos)
    skips = []
    for level, channels in enumerate(CHANNELS, start=1):
        x = pair(x if level == 1 else layers.MaxPooling2D()(x), f"down{level}", channels)
        skips.append(x)
    skips.pop()
    for level, channels in enumerate(CHANNELS[-2::-1], start=1):
        x = layers.Conv2DTranspose(channels, 2, strides=2, name=f"up{level}t")(x)
        x = pair(layers.Concatenate()([x, skips.pop()]), f"up{level}", channels)
    return keras.Model(photos, layers.Conv2D(CATEGORY_COUNT, 1, name="out")(x))


def load(network, weights):
    """Sets the weights from those of lookbook by name: OIHW (IOHW where transposed) becomes HWIO (HWOI)."""
    for layer in network.layers:
        if layer.weights:
            kernel = np.transpose(weights[f"{layer.name}.weight"], (2, 3, 1, 0))
            layer.set_weights([kernel, weights[f"{layer.name}.bias"]])


class Seed:
    """The recipe: mean binary cross-entropy over all maps, Adam."""

    def __init__(self, learning_rate=1e-3, weights=None):
        self.network = unet()
        if weights is not None:
            load(self.network, weights)
        self.adam = keras.optimizers.Adam(learning_rate, 0.9, 0.999, 1e-7)
        self.adam.build(self.network.trainable_variables)

    @tf.function
    def step(self, photos, labels):
        """One step on u8 tensors; the loss before it."""
        truth = tf.one_hot(labels, CATEGORY_COUNT)
        with tf.GradientTape() as tape:
            logits = self.network(photos, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits))
        variables = self.network.trainable_variables
        self.adam.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function
    def predict(self, photos):
        """Category of each pixel, u8 [batch, rows, columns]."""
        return tf.cast(tf.argmax(self.network(photos), axis=-1), tf.uint8)

    def evaluate(self, photos, labels, real):
        """Mean loss and label maps, u8, over the pixels `real` of numpy arrays."""
        logits = self.logits(photos).numpy()[real]
        truth = tf.one_hot(labels[real], CATEGORY_COUNT)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits))
        return float(loss), logits.argmax(axis=-1).astype(np.uint8)

    @tf.function
    def logits(self, photos):
        return self.network(photos)
